"""Seconds by the compiler's schedule: texts by hand, and the compiler."""

import json
import subprocess
import sys

import pytest

from unitemp_jax.aot import schedule, topology
from unitemp_jax.cli.main import main

V5E = topology.parse('v5e:2x2')


def op(line, name, cycles):
  about = f'metadata={{op_name="jit(f)/{name}"}}'
  return f'{line}, {about}, backend_config={{"estimated_cycles":"{cycles}"}}'


PRODUCT = op(
  *('f32[8] fusion(%x), calls=%inside', 'while/body/DiT/ffn/dot_general', 1500)
)
KERNEL = (
  'f32[8] custom-call(%y), custom_call_target="tpu_custom_call", '
  'operand_layout_constraints={bf16[2,50,128]{2,1,0}}, '
  'metadata={op_name="jit(f)/DiT/attention/pallas_call"}'
)
TEXT = f"""HloModule m, is_scheduled=true

%inside (p: f32[8]) -> f32[8] {{
  %p = f32[8] parameter(0)
  ROOT %n = {op('f32[8] negate(%p)', 'inner', 7)}
}}

%body (s: (s32[], f32[8])) -> (s32[], f32[8]) {{
  %s = (s32[], f32[8]) parameter(0)
  %i = s32[] get-tuple-element(%s), index=0
  %x = f32[8] get-tuple-element(%s), index=1
  %one = s32[] constant(1)
  %j = s32[] add(%i, %one)
  %a = (f32[8], f32[8]) all-gather-start(%x), replica_groups={{{{0,1,2,3}}}}
  %m = {PRODUCT}
  %d = f32[8] all-gather-done(%a)
  ROOT %t = (s32[], f32[8]) tuple(%j, %d)
}}

%cond (q: (s32[], f32[8])) -> pred[] {{
  %q = (s32[], f32[8]) parameter(0)
  %c = s32[] get-tuple-element(%q), index=0
  %e = s32[] constant(10)
  ROOT %l = pred[] compare(%c, %e), direction=LT
}}

ENTRY %main (y: f32[8]) -> f32[8] {{
  %y = f32[8] parameter(0)
  %z = s32[] constant(0)
  %st = (s32[], f32[8]) tuple(%z, %y)
  %k = {KERNEL}
  %w = (s32[], f32[8]) while(%st), condition=%cond, body=%body
  ROOT %o = f32[8] get-tuple-element(%w), index=1
}}
"""


@pytest.fixture(autouse=True)
def kernels_turn_six_times(monkeypatch):
  monkeypatch.setattr(schedule, 'grid', lambda one: (2, 3))


def analysed(text=TEXT, bundles=None, cache=None):
  bundles = {'k': 1000} if bundles is None else bundles
  return schedule.analyse(text, V5E, bundles, cache, 1, 4 * 197e12 * 1e-6)


def test_ops_take_their_cycles_as_often_as_loops_turn():
  found = analysed()
  # Ten turns of 1,500 cycles at 1.5 GHz; what is fused is not counted again.
  assert found.ops == pytest.approx(10e-6)
  assert found.kernels == pytest.approx(6 * 1000 / 1.5e9)
  modules = {one.name: one for one in found.modules}
  assert modules['DiT/ffn'].count == 10 and 'DiT/attention' in modules
  assert found.ideal == pytest.approx(1e-6)
  assert found.unknown == 0 and found.waits == 0 < found.network
  assert found.roofline == pytest.approx(1e-6 / found.seconds)


def test_what_nothing_hides_is_waited_for():
  bare = TEXT.replace('"estimated_cycles":"1500"', '"estimated_cycles":"0"')
  found = analysed(bare)
  assert found.waits == pytest.approx(found.network)
  assert found.waits > analysed().waits
  # A gather that is not started apart is waited for in any case.
  at_once = TEXT.replace('all-gather-start', 'all-gather')
  at_once = at_once.replace('all-gather-done', 'bitcast')
  assert analysed(at_once).waits > 0


def test_a_kernel_that_skips_keys_takes_its_share():
  whole = analysed().kernels
  half = analysed(cache=schedule.Cache(50, 0.5))
  assert half.kernels == pytest.approx(whole / 2)
  assert analysed(cache=schedule.Cache(90, 0.5)).kernels == whole


def test_a_kernel_without_a_schedule_is_said():
  found = analysed(bundles={})
  assert found.unknown == 1 and 'no schedule' in '\n'.join(found.lines())


def test_least_effort_has_no_times(capsys):
  argv = ['aot', '--config=x', '--topology=v5e:1x1', '--time', '--fast']
  assert main(argv) == 2
  assert 'ten times' in capsys.readouterr().err


def test_modules_are_those_of_the_code():
  name = 'jit(run)/while/body/closed_call/DiT/blocks/checkpoint/ffn_up/dot'
  assert schedule.module_of(name) == ('DiT/blocks/ffn_up', 'dot')


PROBE = """
import functools, json
from unitemp_jax.aot import topology
import jax, jax.numpy as jnp
from unitemp_jax.aot import compiler, schedule
target = topology.parse('v5e:1x1')
(device,) = topology.devices(target)
here = jax.sharding.SingleDeviceSharding(device)
shapes = [(4680, 1536), (1536, 8960), (8960, 1536)]
shape = functools.partial(jax.ShapeDtypeStruct, dtype=jnp.bfloat16)
arguments = [shape(size, sharding=here) for size in shapes]
found = []
for fast in (False, True):
  with compiler.effort(fast):
    run = jax.jit(lambda x, a, b: jax.nn.gelu(x @ a) @ b)
    text = run.lower(*arguments).compile().as_text()
  flops = 4 * 4680 * 1536 * 8960
  time = schedule.analyse(text, target, {}, None, 1, flops)
  found.append([time.ideal / time.ops, time.roofline])
print(json.dumps(found))
"""


@pytest.mark.slow
def test_a_lone_feed_forward_is_near_the_peak():
  pytest.importorskip('libtpu')
  done = subprocess.run(
    [sys.executable, '-c', PROBE], capture_output=True, text=True, check=True
  )
  normal, least = json.loads(done.stdout.splitlines()[-1])
  assert 0.95 <= normal[0] <= 1.0  # of its two products
  assert 0.9 <= normal[1] < normal[0]  # with the wait for its weights
  assert least[0] < 0.5  # Control: the least effort is far from it.
