"""Collectives of a compiled program, loops and branches included."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from unitemp_jax.aot import hlo

pytestmark = pytest.mark.devices(8)

TEXT = """HloModule m

%body (p: (u32[], f32[8,4])) -> (u32[], f32[8,4]) {
  %p = (u32[]{:T(128)}, /*index=1*/f32[8,4]{1,0:T(8,128)}) parameter(0)
  %i = u32[]{:T(128)} get-tuple-element(%p), index=0
  %x = f32[8,4]{1,0:T(8,128)} get-tuple-element(%p), index=1
  %one = u32[]{:T(128)} constant(1)
  %j = u32[]{:T(128)} add(%i, %one), metadata={op_name="a"}
  %k = u32[] add(%one, %j)
  %s = (f32[8,4], f32[8,4], u32[]{:S(2)}) collective-permute-start(%x), PAIRS
  %d = f32[8,4] collective-permute-done(%s)
  ROOT %t = (u32[], f32[8,4]) tuple(%k, %d)
}

%cond (q: (u32[], f32[8,4])) -> pred[] {
  %n = u32[] constant(7)
  %q = (u32[], f32[8,4]) parameter(0)
  %c = u32[] get-tuple-element(%q), index=0
  ROOT %lt = pred[] compare(%c, %n), direction=LT
}

ENTRY %main (a: f32[8,4]) -> f32[8,4] {
  %a = f32[8,4] parameter(0)
  %z = u32[] constant(0)
  %g = bf16[16,4]{1,0:T(8,128)(2,1)} all-gather(%a), GROUPS, dimensions={0}
  %st = (u32[], f32[8,4]) tuple(%z, %a)
  %w = (u32[], f32[8,4]) while(%st), condition=%cond, body=%body
  ROOT %y = f32[8,4] get-tuple-element(%w), index=1
}
"""
TEXT = TEXT.replace('PAIRS', 'source_target_pairs={{0,1},{1,0},{2,3},{3,2}}')
TEXT = TEXT.replace('GROUPS', 'replica_groups=[2,2]<=[2,2]T(1,0)')


def by_kind(found):
  return {one.kind: one for one in found}


def test_a_loop_runs_its_collectives_as_often_as_it_turns():
  found = by_kind(hlo.count(TEXT, devices=4, slices=1, unknown=9))
  permuted = found['collective-permute']
  # From 0 in steps of two to 7: four turns of 128 bytes.
  assert (permuted.sites, permuted.count, permuted.bytes) == (1, 4, 4 * 128)
  # Each of two devices sends its half of 128 bytes.
  assert found['all-gather'].bytes == 64
  assert found['all-gather'].between == 0


def test_what_goes_between_slices_is_told_apart():
  found = by_kind(hlo.count(TEXT, devices=4, slices=2, unknown=9))
  # Groups are {0, 2} and {1, 3}; slices {0, 1} and {2, 3}.
  assert found['all-gather'].between == found['all-gather'].bytes
  assert found['collective-permute'].between == 0


def test_a_loop_that_ends_at_run_time_takes_what_is_given():
  text = TEXT.replace('%n = u32[] constant(7)', '%n = u32[] parameter(1)')
  found = by_kind(hlo.count(text, devices=4, slices=1, unknown=9))
  assert found['collective-permute'].count == 9


def test_of_loops_that_stand_for_a_choice_one_turns_once():
  loop = '%w = (u32[], f32[8,4]) while(%st), condition=%cond, body=%body'
  named = ', metadata={op_name="jit(f)/chosen/while"}'
  twice = f'{loop}{named}\n  {loop.replace("%w", "%v")}{named}'
  found = by_kind(hlo.count(TEXT.replace(loop, twice), 4, slices=1, unknown=9))
  assert found['collective-permute'].count == 1
  # Control: without their name both of them turn four times.
  plain = TEXT.replace(loop, twice.replace('chosen', 'other'))
  found = by_kind(hlo.count(plain, 4, slices=1, unknown=9))
  assert found['collective-permute'].count == 8


def test_branches_are_taken_by_the_rows_of_their_kind():
  loop = '%w = (u32[], f32[8,4]) while(%st), condition=%cond, body=%body'
  named = ', metadata={op_name="jit(f)/chosen/while"}'
  twice = f'{loop}{named}\n  {loop.replace("%w", "%v")}{named}'
  text = TEXT.replace(loop, twice)
  kinds = (0.25, 0.5, 0.125)  # The rest is of a branch that is not there.

  def taken(text, kinds):
    found = by_kind(hlo.count(text, 4, 1, 9, kinds))
    return found['collective-permute'].count

  assert taken(text, kinds) == 0.5 + 0.125
  assert taken(text, ()) == 1
  branches = '%w = (u32[], f32[8,4]) conditional(%z, %st, %st, %st), '
  branches += 'branch_computations={%body, %cond, %body}'
  assert taken(TEXT.replace(loop, branches), kinds) == 0.25 + 0.125
  # Control: of a conditional with other branches the largest one counts.
  assert taken(TEXT.replace(loop, branches), (0.25, 0.75)) == 1


GROUPS = [
  ('replica_groups={{0,1},{2,3}}', [[0, 1], [2, 3]]),
  ('replica_groups=[2,2]<=[4]', [[0, 1], [2, 3]]),
  ('replica_groups=[2,2]<=[2,2]T(1,0)', [[0, 2], [1, 3]]),
  ("replica_groups=mesh['a'=2,'b'=2] {'b'}", [[0, 1], [2, 3]]),
  ("replica_groups=mesh['a'=2,'b'=2] {'a'}", [[0, 2], [1, 3]]),
  ("replica_groups=mesh['a'=2,'b'=2] {'a','b'}", [[0, 1, 2, 3]]),
  ('replica_groups={}', [[0, 1, 2, 3]]),
]


@pytest.mark.parametrize(('text', 'expected'), GROUPS)
def test_groups_in_all_their_forms(text, expected):
  np.testing.assert_array_equal(hlo.groups(text, 4), expected)


def test_a_program_that_xla_compiled():
  """Five layers on eight devices, each with one sum over all of them."""
  mesh = jax.make_mesh((8,), ('x',), axis_types=(AxisType.Auto,))
  split = NamedSharding(mesh, P('x'))

  def run(x, w):
    def layer(x, _):
      total = jax.shard_map(
        lambda part: jax.lax.psum(part * part, 'x'),
        mesh=mesh,
        in_specs=P('x'),
        out_specs=P(),
      )(x)
      return x + total.sum() * w, None

    return jax.lax.scan(layer, x, None, length=5)[0]

  x = jax.ShapeDtypeStruct((64,), jnp.float32, sharding=split)
  text = jax.jit(run).lower(x, jnp.float32(0.1)).compile().as_text()
  found = by_kind(hlo.count(text, 8, 1, unknown=0))
  assert found['all-reduce'].count == 5
  assert found['all-reduce'].bytes == 5 * 2 * 7 / 8 * 32
  assert set(found) == {'all-reduce'}


def test_text_that_is_no_program_is_refused():
  with pytest.raises(ValueError, match='no ENTRY'):
    hlo.parse('nothing')
