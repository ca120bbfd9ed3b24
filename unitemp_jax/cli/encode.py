"""`unitemp encode`: clips to latents, or prompts to embeddings, by shards."""

import time
from pathlib import Path

import jax
import numpy as np

from unitemp_jax import files
from unitemp_jax.cli import encode_prompts, encode_videos
from unitemp_jax.cli.options import Parser
from unitemp_jax.data import digits_builder, latents
from unitemp_jax.data.tokenizer import Tokenizer
from unitemp_jax.errors import UserError
from unitemp_jax.models import weights
from unitemp_jax.models.vae3d import VAE
from unitemp_jax.objectives.vae import to_unit
from unitemp_jax.training.config import load_config
from unitemp_jax.training.programs import builders
from unitemp_jax.training.programs.builders import anchor_windows

_SHARD = 512  # clips
_BATCH = 16
_LABELS = ('digit', 'colour', 'side', 'digit_id')

_EXAMPLE = """examples:
  Clips, to train on:
    unitemp encode --config=configs/tiny_teacher.py --out=data/tiny_latents
  Your own videos, at full size (config.data.videos, captions, fps):
    unitemp encode --config=configs/wan_1p3b_student_init.py \\
      --config.data.videos=my_videos --out=data/wan_latents
  Prompts, with the text encoder of a model folder:
    unitemp encode prompts.txt --model=models/self_forcing --out=data/prompts
  Prompts, with downloaded weights, the second of four machines:
    unitemp encode prompts.txt --checkpoint=models_t5_umt5-xxl-enc-bf16.pth \\
      --tokenizer=google/umt5-xxl/tokenizer.json --out=data/prompts --shard=1/4
Run the same command again to continue after an interruption."""


def _parse_args(argv: list[str]):
  parser = Parser('encode', __doc__, _EXAMPLE)
  parser.add_argument(
    '--config', metavar='FILE[:ARG]', help='what clips to encode, and how'
  )
  parser.add_argument('--out', type=Path, help='default: config.latents.dir')
  parser.add_argument('--dry_run', action='store_true')
  encode_prompts.add_arguments(parser)
  return parser.parse_with_overrides(argv)


def _encoder(config):
  """Returns video uint8 -> raw latents, jitted, and the weights' hash."""
  path = Path(config.latents.vae)
  vae = VAE(builders.vae_config(config.model))
  data = config.data
  shape = (1, data.num_frames, data.size, data.size, 3)
  shapes = jax.eval_shape(
    vae.init, jax.random.key(0), jax.ShapeDtypeStruct(shape, np.float32)
  )['params']
  params = weights.load(path, shapes)
  encode = jax.jit(
    lambda video: vae.apply(
      {'params': params}, to_unit(video), method='encode'
    )[0]
  )
  return encode, files.file_sha256(path)[:16]


def encode_clips(
  encode, source, tokenizer: Tokenizer, length: int, indices, windows
):
  """Encodes some clips of a source to a list of records.

  `windows` are the frames that are encoded by themselves as anchors.
  """
  clips = [source[i] for i in indices]
  padded = clips + clips[-1:] * (-len(clips) % _BATCH)
  rows, ends, anchors = [], [], []
  for first in range(0, len(padded), _BATCH):
    videos = np.stack([c['video'] for c in padded[first : first + _BATCH]])
    rows.append(np.asarray(encode(videos), np.float16))
    ends.append(np.asarray(encode(videos[:, -1:]), np.float16))
    parts = [np.asarray(encode(videos[:, w]), np.float16) for w in windows]
    anchors += list(np.stack(parts, axis=1)) if parts else []
  z, last = np.concatenate(rows), np.concatenate(ends)
  captions = [
    c['caption'].decode() if isinstance(c['caption'], bytes) else c['caption']
    for c in clips
  ]
  ids, mask = tokenizer.encode(captions, length)
  return [
    {
      'latents': z[i],
      'last_image': last[i],
      **({'anchors': anchors[i]} if anchors else {}),
      'ids': ids[i].astype(np.int32),
      'mask': mask[i].astype(bool),
      **{name: np.asarray(clip[name], np.int32) for name in _LABELS},
    }
    for i, clip in enumerate(clips)
  ]


def main(argv: list[str]) -> int:
  """Runs the verb and returns its exit code.

  Raises:
    UserError: bad config or weights, or `--out` holds other latents.
  """
  args, overrides = _parse_args(argv)
  if args.prompts:
    return encode_prompts.run(args, overrides)
  if args.config is None:
    raise UserError(
      'say what to encode: --config=FILE for clips, or files with prompts.'
    )
  config = load_config(args.config, overrides)
  if 'latents' not in config:
    raise UserError(
      f'{args.config} has no config.latents; use a stage after the VAE, such '
      'as configs/tiny_teacher.py.'
    )
  out = args.out or Path(config.latents.dir)
  data = config.data
  if data.name == 'video_folder':
    return encode_videos.run(config, out, args.dry_run)
  shards = -(-data.num_clips // _SHARD)
  print(f'{data.num_clips} clips of {data.name} to {shards} shards in {out}')
  encode, digest = _encoder(config)
  windows = anchor_windows(config.orders, data.num_frames)
  about = {'vae': digest, 'clips': data.num_clips, 'data': data.to_dict()}
  about['windows'] = [[window.start, window.stop] for window in windows]
  about['data'].pop('dir')
  if (out / latents.INDEX).exists():
    old = latents.read_index(out)
    if any(old.get(key) != value for key, value in about.items()):
      raise UserError(
        f'{out} holds latents of another VAE or data set; choose another --out.'
      )
    print(f'nothing to do: {out / latents.INDEX}')
    return 0
  if args.dry_run:
    return 0
  tokenizer = Tokenizer.from_file(config.latents.tokenizer)
  out.mkdir(parents=True, exist_ok=True)
  source = digits_builder.prepare(
    data.dir, builders.clip_spec(data), data.num_clips
  )
  length = config.model.text.length
  start = time.monotonic()
  for shard in range(shards):
    path = latents.shard_path(out, shard)
    if path.exists():
      continue
    indices = range(shard * _SHARD, min((shard + 1) * _SHARD, data.num_clips))
    latents.write_shard(
      path, encode_clips(encode, source, tokenizer, length, indices, windows)
    )
    left = (time.monotonic() - start) / (shard + 1) * (shards - shard - 1)
    print(f'shard {shard + 1}/{shards}, {left:.0f} s left', flush=True)
  print(latents.write_index(out, shards, about))
  return 0
