"""Bad and odd input that use has found, kind by kind."""

import resource
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import user_files

from unitemp_jax.cli import main as cli
from unitemp_jax.parallel import locks

CONFIGS = Path(__file__).parents[2] / 'configs'
G = 'generate --out=o --prompt=x'
TRAIN = f'train --config={CONFIGS}/tiny_vae.py:test --workdir=new'
AOT = f'aot --config={CONFIGS}/wan_1p3b_distill.py'
ABLATE = f'ablate --config={CONFIGS}/ablations.py --out=o --dry_run'
FOLDER = 'data video_folder --videos=dir --captions=captions.csv --out=o '
FOLDER += '--height=16 --width=16 --num_frames=5'
BOARD = 'generate --out=o --storyboard'
VERIFY = 'evaluate verify A --suite=vbench --manifest=cap.json'
TEACHER = 'teacher --model=model --prompt=x --out=o --dry_run'
STUDIO = 'studio --out=o --dry_run'
SET = 'evaluate generate --suite=moviegen --out=o --dry_run'

# Kind -> [(command, exit code, words that it says)].
CASES = {
  'a file is overwritten': [
    (
      'generate --prompt=x --extend=own/extend/0000-x.mp4 --after=8 --out=own',
      2,
      ['own/extend/0000-x.mp4 is there already'],
    ),
    (
      'generate --prompt=x --extend=clip.mp4 --after=8 --out=own --dry_run',
      2,
      ['own/extend/0000-x.mp4 is there already'],
    ),
    (
      'convert --model=model --to=wan --out=w.safetensors',
      2,
      ['w.safetensors is named like a file'],
    ),
    ('compare votes v.json --key=K.json --out=K.json', 2, ['--out=K.json']),
    ('compare votes v.json --key=K.json --out=v.json', 2, ['--out=v.json']),
    ('compare A B --out=A', 2, ['choose another folder']),
    (f'{AOT} --topology=v5e:4x4 --out=readme.md', 2, ['readme.md']),
    (f'{G.replace("=o", "=~/new")} --dry_run', 0, [f'to {Path.home()}/new']),
    *(
      (f'{command} --out=linked', 2, ['is a link', 'linked/measured'])
      for command in ('compare A B', 'evaluate folder A')
    ),
  ],
  'a wrong result looks finished': [
    (f'{G} --model=nan_student', 2, ['student', 'not finite']),
    (f'{G} --model=nan_vae', 2, ['vae', 'not finite']),
    (f'{G} --model=zero_vae', 2, ['vae', 'is 0 everywhere']),
    (f'{G} --model=zero_text', 2, ['text', 'is 0 everywhere']),
    (f'{TRAIN} --config.num_steps=-5', 2, ['num_steps']),
    (f'{TRAIN} --dry_run --config.data.name=no', 2, ["data.name is 'no'"]),
    *(
      (f'encode --dry_run --config={CONFIGS}/tiny_teacher.py:test {more}', 2, w)
      for more, w in (
        ('--config.data.name=no', ["data.name is 'no'"]),
        ('--config.orders.block=0', ['orders.block is 0']),
      )
    ),
    (f'{G} --embeddings=none --dry_run', 2, ['none holds no embeddings']),
    ('bench reading --out=o --dry_run', 2, ['reading needs --config']),
    (f'{ABLATE} --results=a.png', 2, ['a.png is a file']),
    (f'{G} --image=--', 2, ['-- is no value']),
    (f'{TRAIN} --config.optimizer.learning_rate=-1', 2, ['learning_rate']),
    (f'{G} --model=fps_0 --dry_run', 2, ['model.json', 'fps']),
    (f'{G} --model=narrow --dry_run', 2, ['model.json', '5 heads']),
    (f'{G} --model=text_width --dry_run', 2, ['model.json', 'width']),
    (f'{G} --model=quoted_frames --dry_run', 2, ['model.json', 'frames']),
    (f'{G} --model=low --dry_run', 2, ['model.json', 'height']),
    (f'{G} --seed={2**70}', 2, ['seed', 'must lie in 0..']),
    (f'{G} --seed=-1', 2, ['seed -1 must lie in 0..']),
    (f'{G} --orders=', 2, ["--orders names ''"]),
    (f'{G} --long=', 2, ["length is ''"]),
    (f'{G} --orders=forward,forward --dry_run', 0, ['1 clips']),
    (f'{G} --length=-2s', 2, ['length is -2s']),
    ('plan --order=forward --prompts=0:9999999999', 2, ['--prompts']),
    ('generate --prompt=x --out=gs://bucket/x', 2, ['gs://bucket/x']),
    (f'{TRAIN} --hosts=2 --config.data.dir=gs://b/x', 2, ['mount the bucket']),
    ('generate --prompt=x --out=x.mp4', 2, ['x.mp4 is named like a file']),
    (f'{SET} --manifest=twice.json', 2, ['twice.json', 'id']),
    (f'{SET} --manifest=open.csv', 2, ['open.csv line 2', 'quote']),
    (f'{SET} --manifest=names.csv', 2, ['names.csv', 'two columns of one']),
    (f'{SET} --manifest=more.csv', 2, ['more.csv line 2', 'in quotes']),
    (f'{SET} --manifest=half.json', 2, ['half.json']),
    (
      f'{SET} --manifest=keys.jsonl',
      2,
      ['line 1', "the key 'prompt' is there twice"],
    ),
    (f'{TEACHER} --embeddings=none', 2, ['none holds no embeddings']),
    (f'{TEACHER} --guidance_scale=1e40', 2, ['0..1000, not 1e+40']),
    (f'{TEACHER} --guidance_scale=-5', 2, ['0..1000, not -5']),
    (f'{TEACHER} --shift=1e308', 2, ['the shift is 1e+308']),
    (f'{STUDIO} --host=999.1.1.1', 2, ['999.1.1.1', 'another --host']),
    (f'{STUDIO} --host=192.0.2.1', 2, ['192.0.2.1', 'another --host']),
    (f'{STUDIO} --port=0', 0, ['would serve']),
    ('encode bom.txt --out=o --config=bare.py', 2, ['one of the two']),
    (
      'encode bom.txt --out=o --model=model --checkpoint=x --tokenizer=y',
      2,
      ['one of the two'],
    ),
    *(
      (f'{TRAIN} --dry_run --config.{key}={value}', 2, [key])
      for key, value in (
        *(('batch_size', 0), ('accumulate', 0), ('seed', -1), ('seed', 2**70)),
        *(('optimizer.b2', 2), ('ema_decay', 1), ('loss.kl', -1)),
        *(('optimizer.weight_decay', -1), ('cut_frames', 10)),
        *(('cut_frames', 101), ('optimizer.learning_rate', 1e30)),
      )
    ),
    *(
      (f'{TRAIN} --dry_run --config.model.vae.{key}={value}', 2, words)
      for key, value, words in (
        ('patch', 33, ['not a multiple of 132']),
        ('base_dim', 0, ['vae.base_dim is 0']),
        ('base_dim', 1, ['vae.base_dim is 1']),
        ('dim_mult', '(1,)', ['vae.dim_mult']),
      )
    ),
    (f'{G} --prompts=bom.txt', 2, ['--prompt or --prompts']),
    (f'{G} --orders=forward,all', 2, ['"all" alone']),
    (f'{G} --orders="forward, backward" --dry_run', 0, ['2 clips']),
    *(
      (f'{G} --{option}=', 2, [option, 'is empty'])
      for option in ('image', 'plan', 'storyboard', 'first', 'draw', 'model')
    ),
    ('generate --prompt=x --out=', 2, ['out', 'is empty']),
    ('generate --prompt=x --out=x.png', 2, ['x.png is named like a file']),
    *(
      (f'{BOARD}=story.yaml --{option}', 2, [option.partition('=')[0]])
      for option in (
        *('seed=0', 'anchors=0', 'block=3', 'start_level=0', 'trim'),
        *('prompt_at=9:x', 'trained_span=9'),
      )
    ),
    (f'{G} --long=61 --batch_size=3', 2, ['--batch_size', '--orders']),
    *(
      (f'{VERIFY} --{option}', 2, [option])
      for option in ('fps=nan', 'fps=0', 'size=32', 'size=0x0')
    ),
    (f'{VERIFY} --frames=0', 2, ['--frames: 0 is too few']),
    ('evaluate verify A --fps=8', 2, ['--fps belongs to --suite']),
    (
      'evaluate folder A --out=o --features=big.npy --real_features=four.npy',
      2,
      ['big.npy', 'not finite, or above 1e+100'],
    ),
    (
      f'{G} --regenerate=clip.mp4 --span=9:9 --dry_run',
      0,
      ['frames 9..11 are made anew'],
    ),
    (f'{G} --regenerate=clip.mp4 --span=19:9', 2, ['reversed; write 9:19']),
    (
      f'{G} --regenerate=clip.mp4 --span=10:17 --dry_run',
      0,
      ['note: frames 9..19 are made anew'],
    ),
    ('plan --order=forward --out=', 2, ['--out=: must end in']),
  ],
  'what was given is changed': [
    (
      'generate --prompt="a cat jumps over the moon" --out=o --dry_run',
      0,
      ['note: ', 'cat', 'moon', 'digit'],
    ),
    (
      'generate --dry_run --out=o --prompt="' + 'a red seven falls ' * 20 + '"',
      0,
      ['note: ', 'cut'],
    ),
    (f'{G} --extend=loud.mp4 --after=8 --dry_run', 0, ['sound']),
    (
      f'{G} --extend=clip35.mp4 --after=8 --trim --dry_run',
      0,
      ['given: frames 0..32', '41 frames', 'first 2'],
    ),
    ('generate --prompts=bom.txt --out=o --dry_run', 0, ['    a red three']),
    (
      'generate --prompts=prompts.CSV --out=o --dry_run',
      0,
      ['1 clips', '    a red one, falls\n'],
    ),
    ('generate --prompts=prompts.tsv --out=o', 2, ['tsv: unknown kind']),
    ('generate --prompts=marks.txt --out=o', 2, ['holds no prompt']),
    ('generate --prompts=images.csv --out=o', 2, ['names images']),
    ('generate --prompts=seeds.jsonl --out=o', 2, ['names seeds', '--seed']),
    ('teacher --prompts=seeds.jsonl --out=o --model=model', 2, ['names seeds']),
    ('generate --prompts=blank.csv --out=o --dry_run', 0, ['1 clips']),
    *(
      (
        f'generate --out=o --num_prompts=1 --orders=inbetween --{end}=a.png',
        2,
        ['leave out --first and --last'],
      )
      for end in ('first', 'last')
    ),
    (
      f'{G} --plan=plan.json --prompt_at=24:y --dry_run',
      2,
      ['2 prompts are given and the video shows 1'],
    ),
    (f'{G} --long=61 --sinks=none --sink_latents=3', 2, ['no number of them']),
    (
      'plan --order=long --sinks=none --sink_latents=3',
      2,
      ['no number of them'],
    ),
    ('generate --prompt=\ufeff --out=o', 2, ['the prompt is empty']),
    (f'{G} --negative_prompt="a cat" --dry_run', 0, ['does not know "cat"']),
    ('teacher --model=model --out=o --prompt="a cat" --dry_run', 0, ['"cat"']),
    (
      f'{TEACHER} --guidance_scale=1 --negative_prompt=red',
      0,
      ['negative prompt does nothing'],
    ),
    (
      f'{G} --negative_prompt=red --nag_scale=1 --dry_run',
      0,
      ['negative prompt does nothing'],
    ),
  ],
  'tracebacks, hangs, memory': [
    ('generate --prompt=x --out=/proc/new', 2, ['/proc/new']),
    *(
      (command, 2, ['a.png is no folder'])
      for command in (
        'generate --prompt=x --out=a.png/new --dry_run',
        'compare A B --out=a.png/new',
        f'{TRAIN} --dry_run'.replace('=new', '=a.png/new'),
      )
    ),
    *(
      (f'{command}={name}', 2, [name, 'no file that can be read'])
      for name in ('fifo', '/dev/zero')
      for command in (
        *(f'{G} --image', f'{G} --noise', f'{G} --plan'),
        *('generate --out=o --prompts', 'generate --out=o --storyboard'),
        f'{SET} --manifest=bom.txt --long_prompts',
        'evaluate folder A --out=o --real_features=four.npy --features',
      )
    ),
    ('compare numbers four.npy five.npy', 2, ['four.npy', 'it is no npz']),
    (f'{G} --image=strange.mp4', 2, ['strange.mp4', 'convert it']),
    ('generate --out=o --prompts=empty.json', 2, ['empty.json', 'not JSON']),
    (f'{G} --long=25 --sinks=both', 2, ['25 frames', 'use 29 or more']),
    (f'{G} --long=29 --sinks=both --dry_run', 0, ['29 frames']),
    (f'{FOLDER} --fps=1e300', 2, ['fps is 1e+300']),
    (f'{FOLDER} --fps=nan', 2, ['fps is nan']),
    (f'{FOLDER} --fps=9'.replace('16', '9999999'), 2, ['height is 9999999']),
    ('data falling_digits --out=o --num_clips=1 --size=1000000', 2, ['size']),
    ('plan --order=forward --block=1000000000', 2, ['use 1..1000']),
    ('plan --order=forward --start_level=9999', 2, ['use 0..1000']),
    ('generate --prompt=x --out=a.png/new', 2, ['a.png/new']),
    ('generate --prompt=x --out=dangling', 2, ['dangling']),
    ('generate --prompt=x --out=dangling/new', 2, ['dangling']),
    *(
      (f'generate --prompt=x --out=half --orders={order} --dry_run', 2, [order])
      for order in ('forward', 'backward')
    ),
    (f'{G} --model=letters --dry_run', 2, ['orders is no list']),
    (f'{G} --model=slow --dry_run', 2, ['fps is 1e-300']),
    *(
      (f'{G} --model=model_{name} --dry_run', 2, ['model.json'])
      for name in ('empty', 'garbage', 'list', 'deep', 'dir')
    ),
    *(
      (f'compare votes v.json --key={name}', 2, [name, '--key'])
      for name in (
        *('empty.json', 'garbage.json', 'list.json', 'deep.json', 'empty'),
        *('trial.json', 'studyless.json'),
      )
    ),
    *(
      (f'compare votes {name} --key=K.json', 2, [name])
      for name in (
        *('empty.json', 'garbage.json', 'list.json', 'deep.json', 'empty'),
        'five.json',
      )
    ),
    *(
      (f'plan --plan={name}', 2, [name])
      for name in (
        *('empty.json', 'garbage.json', 'list.json', 'deep.json', 'empty'),
      )
    ),
    *(
      (f'generate --out=o --storyboard={name}', 2, [name])
      for name in (
        *('empty.json', 'list.json', 'deep.json', 'deep.yaml', 'empty'),
        *('aliases.yaml', 'aliases30.yaml'),
      )
    ),
    (f'{BOARD}=story.yaml --dry_run', 0, ['frames', 'a \U0001f600 two']),
    (f'{BOARD}=half.yaml', 2, ['half.yaml:5', 'half a character']),
    (f'{BOARD}=late.yaml', 2, ['late.yaml:1', f'0..{2**32 - 1}']),
    (f'{G} --image=one.mp4 --dry_run', 0, ['given: frames 0..0']),
    *(
      (f'{command} --config={name}.py', 2, [f'{name}.py', word])
      for command in ('train --workdir=new', 'aot --topology=v5e:2x2')
      for name, word in (('bare', 'lacks'), ('exit', 'SystemExit'))
    ),
    ('export --out=new --student=x --config=exit.py', 2, ['exit.py']),
    (
      'generate --prompts=bom.txt --out=o --shard=3/4 --draw=o.svg --dry_run',
      2,
      ['no clip to draw'],
    ),
    *(
      (f'generate --out=o --storyboard={name}', 2, [f'{name}:5', 'too large'])
      for name in ('digits.yaml', 'huge.yaml')
    ),
    *(
      (f'{SET} --manifest={name}', 2, [name])
      for name in (
        *('empty.json', 'garbage.json', 'list.json', 'deep.json', 'empty'),
      )
    ),
    *(
      (f'aot --table={name}.yaml --known --dry_run', 2, [name, word])
      for name, word in (
        *(('deep', 'too deep'), ('aliases', 'more than 10000 values')),
        *(('story', "no key 'size'"), ('octal', 'octal.yaml:4: 010 would')),
        *(('twice', 'here again after line 2'), ('step', 'steps must be a')),
        *(('less', "lacks 'topology'"), ('axis', 'context must be a whole')),
      )
    ),
    (f'{AOT} --topology=v5e:2x2 --slices=1000000', 2, ['use up to 25000']),
    ('evaluate --out=o --num_clips=1000000000', 2, ['--num_clips', 'up to']),
    (f'{SET} --manifest=many.txt --samples=1000', 2, ['3000000 clips']),
    (f'{G} --length=1000001 --dry_run', 2, ['at most 100001']),
    (f'{G} --long=1000001 --dry_run', 2, ['at most 100001']),
    (f'{G} --height=100000 --dry_run', 2, ['100000']),
    (f'{G} --length={"9" * 5000} --dry_run', 2, ['at most 100001']),
    ('plan --order=forward --frames=100000001', 2, ['--frames']),
    ('plan --order=forward --rows=1000000000', 2, ['--rows']),
    (
      'generate --prompts=many.txt --out=o --dry_run',
      0,
      ['3000 clips', 'and 2980 more notes'],
    ),
    (
      'evaluate folder A --out=o --features=huge.npy --real_features=four.npy',
      2,
      ['huge.npy'],
    ),
    (
      f'{TRAIN} --hosts=2 --coordinator=notanaddress --host_index=0',
      2,
      ['notanaddress'],
    ),
    (f'{TRAIN} --coordinator=notanaddress', 2, ['--host_index']),
    ('convert --student=model --out=model', 2, ['model']),
    (
      'convert --model=model --to=wan --out=model',
      2,
      ['model'],
    ),
    ('convert --student=hf://one --out=new', 2, ['hf://OWNER/NAME']),
    ('generate --out=o --prompt=\udcff', 2, ['UTF-8']),
    (f'{G} --image=clip.mp4', 2, ['all 33 frames', '--length=45']),
  ],
  'found late': [
    (
      'evaluate folder A --out=o --features=four.npy --real_features=five.npy',
      2,
      ['4 numbers per clip'],
    ),
    ('evaluate --out=o --markdown=readme.md', 2, ['readme.md', 'no file that']),
    (
      'evaluate --out=o --markdown=readme.md --dry_run',
      2,
      ['readme.md', 'no file that'],
    ),
    ('evaluate --out=o --initial=no.safetensors', 2, ['no.safetensors']),
  ],
  'messages': [
    (f'{TRAIN.replace(":test", ":tets")}', 2, ['tets: the argument', '"test"']),
    (
      f'{G} --long=61 --prompt_at=12:a --prompt_at=1s:b',
      2,
      ['12 and 1s, at which', 'both frame 12'],
    ),
    (
      f'{G} --long=61 --prompt_at=99:a',
      2,
      ['the time of a prompt is 99, outside'],
    ),
    (
      f'{G} --orders=backward --anchors=0',
      2,
      ['error: frames 21..32 would be made from nothing', '(--anchors)'],
    ),
    *(
      (command, 2, ['of 1000000000 is longer', 'up to 25001'])
      for command in (
        *(f'{BOARD}=wide.yaml', f'{G} --window={10**9}'),
        f'{G} --trained_span={10**9}',
      )
    ),
    (f'{G} --keyframe=-4:a.png', 2, ['-4, counted from the end, is 29']),
    ('plan --order=forward --prompts=999:1', 2, ['frames 0..32']),
    (f'{G} --image=huge.png', 2, ['Cannot read huge.png']),
    (
      f'{G} --keyframe=16:a.png --keyframe=016:a.png',
      2,
      ['keyframe 016', 'a picture at frame 16', 'use frame 20 or later'],
    ),
    (f'{G} --format=mov', 2, ["'mov'", 'use some of mp4, gif']),
    (f'{G} --crf=52', 2, ['--crf=52']),
    (f'{G} --mesh=contex=4', 2, ["'contex=4'", 'data, fsdp, context']),
    (f'{G} --mesh=context=0', 2, ['such as context=4']),
    (f'{G} --mesh=context=2', 2, ['does not fit the 1 devices']),
    (f'{G} --mesh=context=7 --dry_run', 2, ['does not fit the 1 devices']),
    (f'{G} --mesh=fsdp=-1,context=2 --dry_run', 2, ['such as context=4']),
    (f'{G} --mesh=fsdp=1,context=1 --dry_run', 0, ['1 clips']),
    (f'{SET} --manifest=bom.txt --mesh=data=2', 2, ['does not fit the 1 dev']),
    (f'{SET} --manifest=bom.txt --mesh=x', 2, ['such as context=4']),
    (f'{G} --shard=4/4', 2, ['--shard=4/4', 'is not I/N']),
    ('teacher --model=model --prompt=x --out=o --shard=1', 2, ['I/N']),
    (f'{AOT} --topology=v5e:2x2 --search=0', 2, ['0 is too few']),
    (f'{AOT} --topology=v5e:2x2 --search=2 --time', 2, ['training']),
    (f'{AOT} --topology=v5e:2x2 --mesh=context=x', 2, ['such as context=4']),
    (f'{G} --negative_prompt=', 2, ['negative prompt is empty']),
    (f'{G} --nag_tau=2', 2, ['--nag_', '--negative_prompt']),
    (f'{G} --lenght=33', 2, ['--lenght=33', 'did you mean --length?']),
    (f'{G} --num_prompts=3', 2, ['--num_prompts', 'without a prompt']),
    (f'{G} --negative_prompt=y --nag_tau=nan', 2, ['--nag_tau=nan']),
    (f'{G} --playback_fps=0', 2, ['--playback_fps=0']),
    (f'{G} --repeat=3', 2, ['--repeat is for loops']),
    (f'{G} --noise=none.npz', 2, ['none.npz']),
    (f'{G} --noise=four.npy', 2, ['four.npy', 'holds no noise']),
    (f'{G} --noise=garbage.json', 2, ['garbage.json']),
    (f'{G} --noise=axes.npz', 2, ['axes.npz', 'names its axes']),
    (f'{G} --noise=short.npz', 2, ['short.npz', '1 along time and not 9']),
    (f'{G} --plan=plan.json --anchors=3', 2, ['whose file says so itself']),
    (f'{G} --plan=plan4.json', 2, ['plan4.json', 'blocks of 4', '--block=3']),
    (f'{G} --plan=given.json', 2, ['reads frames that are given']),
    *(
      (f'{G} --plan={name}', 2, [name])
      for name in (
        *('empty.json', 'garbage.json', 'list.json', 'deep.json', 'empty'),
      )
    ),
    (f'{G} --local_attn_size=3', 2, ['--local_attn_size=3', 'use 4 or more']),
    (f'{G} --local_attn_size=6 --window=3', 2, ['say the same']),
    (f'{G} --local_attn_size=6 --dry_run', 0, ['--window=3']),
    (f'{G} --local_attn_size=-1 --dry_run', 0, ['3: no --window']),
    (
      f'{G} --long=61 --sinks=past --sink_latents=5 --dry_run',
      0,
      ['of 5 --sink_latents a generated block has 3'],
    ),
    ('plan --order=backward --first_block=1', 2, ['--first_block']),
    ('plan --order=forward --local_attn_size=2', 2, ['use 4 or more']),
    (f'{G} --extend=clip.mp4', 2, ['extend needs --before', '--after=24']),
    (f'{G} --regenerate=one.mp4 --span=0:0', 2, ['1 frames is too short']),
    (f'{G} --loop --length=5', 2, ['loop of 5 frames', 'use 9 or more']),
    (
      f'{G} --loop --length=1',
      2,
      ['length is 1 frames, which is too few', 'use 5'],
    ),
    (f'{G} --length=30 --dry_run', 2, ['29 (2.42s) or 33']),
    (f'{G} --orders=inbetween --length=1', 2, ['--first and --last']),
    (f'{TRAIN} --config.batch_size=0', 2, ['batch_size is 0; use 1']),
    (f'{G} --extend=dir --after=8', 2, ['dir', 'folder']),
    (f'{G} --image=dir', 2, ['dir', 'folder']),
    ('generate --out=o --prompts=dir', 2, ['dir']),
    (f'{G} --image=https://example.com/a.png', 2, ['web address']),
    (f'{G} --model=https://example.com/m', 2, ['web address']),
    (f'{G} --model=org/name', 2, ['org/name']),
    (
      'evaluate generate --suite=vbench --out=o --manifest=none.txt',
      2,
      ['none.txt'],
    ),
  ],
}
WORDS_OF_THE_CODE = ('latent', ' row', 'order:', 'INTERNAL', 'Traceback')
SECONDS = 30


def cases():
  for kind, table in CASES.items():
    for command, code, words in table:
      yield pytest.param(
        command,
        code,
        words,
        id=f'{kind}: {command.encode(errors="replace").decode()[:90]}',
      )


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  return user_files.write(tmp_path_factory.mktemp('faults'))


def snapshot(folder):
  """Size and time of all files, and all folders."""
  return {
    path: path.is_dir() or (path.lstat().st_size, path.lstat().st_mtime_ns)
    for path in folder.rglob('*')
  }


def call(command):
  try:
    return cli.main(shlex.split(command))
  except SystemExit as error:
    return error.code


@pytest.mark.parametrize('command, code, words', cases())
def test_input(folder, monkeypatch, capsys, command, code, words):
  monkeypatch.chdir(folder)
  monkeypatch.setenv('NO_GCE_CHECK', 'true')  # Does not look for a cloud.
  before = snapshot(folder)
  start = time.monotonic()
  assert call(command) == code
  assert time.monotonic() - start < SECONDS
  said = capsys.readouterr()
  text = said.err if code else said.out
  for word in words:
    assert word in text
  if code:
    lines = said.err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith('unitemp: error: ')
    for word in WORDS_OF_THE_CODE:
      assert word not in lines[0]
  assert snapshot(folder) == before


@pytest.mark.parametrize(
  'command, code',
  [
    (f'{G} --long=100001 --dry_run', 0),
    (f'{G} --long=100001 --direction=backward --sinks=both --dry_run', 0),
    (f'{G} --length=10001 --orders=backward --dry_run', 0),
    (f'{G} --length=100001 --dry_run', 2),
    ('plan --order=loop --frames=9001', 0),
    ('plan --order=loop --frames=100001', 2),
    ('plan --order=loop --frames=100001 --window=3', 0),
    ('plan --order=backward --frames=100001 --window=800', 2),
    ('generate --out=o --prompts=many.txt --image=a.png --dry_run', 0),
    ('generate --out=o --prompts=many.txt --plan=plan.json --dry_run', 0),
    ('plan --order=backward --frames=100001 --window=9', 0),
    (f'plan --order=story --scenes={",".join(["100000"] * 9)}', 2),
    (f'plan --order=story --scenes={",".join(["8"] * 500)}', 0),
  ],
  ids=lambda value: str(value)[:60],
)
def test_sizes_take_seconds(folder, monkeypatch, capsys, command, code):
  """Of one processor; they grew with the square of what was typed."""
  monkeypatch.chdir(folder)
  start = time.process_time()
  assert call(command) == code
  assert time.process_time() - start < 10
  assert code == 0 or 'use at most' in capsys.readouterr().err


def test_ten_thousand_prompts_take_seconds(tmp_path):
  """In a process of its own, in which shapes are not checked."""
  lines = '\n'.join(f'a red {number}' for number in range(10_000))
  (tmp_path / 'prompts.txt').write_text(lines)
  words = f'generate --out=o --dry_run --prompts={tmp_path / "prompts.txt"}'
  before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
  code = 'import sys; from unitemp_jax.cli import main; '
  code += 'sys.exit(main.main(sys.argv[1:]))'
  subprocess.run([sys.executable, '-c', code, *words.split()], check=True)
  assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before < 8


# Command -> names of what it writes to the folder `mine`.
WRITTEN = {
  'convert --model=model --to=wan --out=mine': (
    *('config.json', 'diffusion_pytorch_model.safetensors'),
  ),
  'encode bom.txt --model=model --out=mine': ('keys.json', 'embeddings.json'),
  'evaluate folder A --out=mine': (
    *('clips.csv', 'metrics.json', 'metrics.md', 'notes.json', 'index.html'),
  ),
  'compare A B --out=mine': (
    *('clips.csv', 'metrics.json', 'comparison.md', 'unpaired.csv'),
    *('index.html', 'blind_key.json', 'blind/index.html'),
  ),
  'evaluate --out=mine': (
    *('metrics.json', 'metrics.md', 'orders.json', 'flicker.png'),
  ),
  'evaluate generate --suite=moviegen --out=mine --manifest=bom.txt': (
    'clips.jsonl',
  ),
  'bench --out=mine': ('bench.json', 'bench.md', 'tiles.json'),
  'bench device about --out=mine': ('about.json',),
  'bench device tiles --out=mine': ('attention_tiles.json',),
  'bench device table --out=mine': ('table.md',),
  f'{TRAIN} --workdir=mine': (
    *('metrics.jsonl', 'goodput.jsonl', 'weights/vae.safetensors'),
  ),
  f'{AOT} --topology=v5e:4x4 --out=mine/r.json': ('r.json',),
  'plan --order=forward --out=mine/p.json': ('p.json',),
  f'{G} --dry_run --draw=mine/p.svg': ('p.svg',),
}


@pytest.mark.parametrize(
  'command, name',
  [(command, name) for command, names in WRITTEN.items() for name in names],
)
def test_a_file_that_has_an_outputs_name_is_kept(
  folder, monkeypatch, capsys, command, name
):
  monkeypatch.chdir(folder)
  path = folder / 'mine' / name
  path.parent.mkdir(parents=True)
  path.write_text('mine')
  before = snapshot(folder)
  try:
    assert call(command) == 2
    assert name in capsys.readouterr().err
    assert path.read_text() == 'mine'
    assert snapshot(folder) == before
  finally:
    shutil.rmtree(folder / 'mine', ignore_errors=True)


@pytest.mark.parametrize(
  'command',
  [
    'compare A B --out=mine',
    'convert --model=model --to=wan --out=mine',
    'evaluate folder A --out=mine',
    'evaluate folder A --out=mine --shard=0/2',
    'evaluate --model=model --out=mine',
    'bench --model=model --out=mine',
    'bench device about --out=mine',
  ],
)
def test_one_folder_has_one_writer(folder, monkeypatch, capsys, command):
  monkeypatch.chdir(folder)
  try:
    with locks.lock(folder / 'mine'):
      before = snapshot(folder)
      assert call(command) == 2
      assert 'has been writing to mine since' in capsys.readouterr().err
      after = snapshot(folder)
      # Its writer says again and again that it lives.
      for found in (before, after):
        del found[folder / 'mine' / '.writer.json']
      assert after == before
  finally:
    shutil.rmtree(folder / 'mine', ignore_errors=True)
