"""Files of random damage, and what readers make of them."""

import copy
import json

from unitemp_jax.errors import UserError

# What stands in JSON where something else is expected.
ODD = (
  *(None, True, 0, -1, 3, 1.5, 2**70, 1e400, '', 'x', '9' * 400, '\ud800'),
  *([], [[]], [1], {}, {'x': {}}, [None, 'x', {}], '../../x', 'a\x00b'),
)


def damaged(rng, whole, most=None):
  """Some of the first bytes changed, doubled, or taken out."""
  data = bytearray(whole)
  for _ in range(rng.integers(1, 5)):
    at = int(rng.integers(0, max(min(most or len(data), len(data)), 1)))
    kind = rng.integers(0, 4)
    if kind == 0:
      data[at : at + 1] = bytes([rng.integers(0, 256)])
    elif kind == 1:
      data[at:at] = data[at : at + int(rng.integers(1, 40))]
    elif kind == 2:
      del data[at : at + int(rng.integers(1, 40))]
    else:
      digits = str(rng.integers(0, 2**63 - 1)).encode()
      data[at : at + len(digits)] = digits
  return bytes(data)


def other_json(rng, whole):
  """JSON in which some values are others, moved, doubled or gone."""
  tree = [json.loads(whole)]
  for _ in range(rng.integers(1, 4)):
    node, key = tree, 0
    while rng.integers(0, 5) and isinstance(node[key], dict | list):
      inner = node[key]
      if not inner:
        break
      keys = list(inner) if isinstance(inner, dict) else range(len(inner))
      node, key = inner, keys[int(rng.integers(0, len(keys)))]
    kind = rng.integers(0, 4)
    if kind == 0 and node is not tree:
      del node[key]
    elif kind == 1:
      node[key] = [copy.deepcopy(node[key])]
    else:
      node[key] = copy.deepcopy(ODD[int(rng.integers(0, len(ODD)))])
  return json.dumps(tree[0]).encode()


def survive(
  rng, rounds, path, whole, read, *, most=None, tree=False, others=()
):
  """How many mutated files were refused; anything but UserError is a bug.

  Args:
    rng: of numpy.
    rounds: mutated files.
    path: that they are written to.
    whole: bytes of a good file, which is read first, as the control.
    read: reads the path.
    most: only so many of the first bytes are mutated.
    tree: the file is JSON; every other one stays JSON.
    others: bytes of files of other kinds, which are read as well.
  """
  path.write_bytes(whole)
  read(path)
  refused = 0
  for number in range(-len(others), rounds):
    if number < 0:
      path.write_bytes(others[number])
    elif tree and number % 2:
      path.write_bytes(other_json(rng, whole))
    else:
      path.write_bytes(damaged(rng, whole, most))
    try:
      read(path)
    except UserError as error:
      assert str(error).strip(), 'no sentence'
      refused += 1
    except Exception as error:
      error.add_note(f'of {path.read_bytes()[:2000]!r}')
      raise
  return refused
