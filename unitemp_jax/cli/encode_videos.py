"""A folder of one's own videos to latents, at any size, shard by shard."""

import time
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict

from unitemp_jax.data import latents, video_folder_builder
from unitemp_jax.data.tokenizer import Tokenizer
from unitemp_jax.data.video_folder import VideoFolderSpec
from unitemp_jax.errors import UserError
from unitemp_jax.generate.clip_records import ClipRecorder
from unitemp_jax.generate.prompt_encoder import fingerprint
from unitemp_jax.models import sizes, weights
from unitemp_jax.training.programs import builders
from unitemp_jax.training.programs.builders import anchor_windows

_SHARD = 64  # clips


def run(config: ConfigDict, out: Path, dry_run: bool) -> int:
  """Encodes what `config.data` describes; returns the exit code.

  Raises:
    UserError: bad folder, captions or weights, or `out` holds other latents.
  """
  data = config.data
  spec = VideoFolderSpec(
    videos=data.videos,
    fps=data.fps,
    height=data.height,
    width=data.width,
    num_frames=data.num_frames,
    captions=data.captions or None,
  )
  vae = builders.vae_config(config.model)
  path = Path(config.latents.vae)
  weights.check(path, sizes.param_shapes(vae))
  tokenizer = Tokenizer.from_file(config.latents.tokenizer)
  if dry_run:
    print(f'would encode the videos of {data.videos} to {out}')
    return 0
  source = video_folder_builder.prepare(data.dir, spec, report=print).source
  windows = anchor_windows(config.orders, data.num_frames)
  about = {
    'vae': fingerprint(path),
    'clips': len(source),
    'data': {name: data[name] for name in ('videos', 'fps', 'num_frames')},
    'size': [data.height, data.width],
    'windows': [[window.start, window.stop] for window in windows],
  }
  if (out / latents.INDEX).exists():
    old = latents.read_index(out)
    if any(old.get(key) != value for key, value in about.items()):
      raise UserError(
        f'{out} holds latents of another VAE or data set; choose another --out.'
      )
    print(f'nothing to do: {out / latents.INDEX}')
    return 0
  out.mkdir(parents=True, exist_ok=True)
  params = weights.load(path, sizes.param_shapes(vae))
  recorder = ClipRecorder(vae, jax.device_put(params), windows)
  shards = -(-len(source) // _SHARD)
  start = time.monotonic()
  for shard in range(shards):
    target = latents.shard_path(out, shard)
    if target.exists():
      continue
    numbers = range(shard * _SHARD, min((shard + 1) * _SHARD, len(source)))
    length = config.model.text.length
    latents.write_shard(
      target, [_record(recorder, source[i], tokenizer, length) for i in numbers]
    )
    left = (time.monotonic() - start) / (shard + 1) * (shards - shard - 1)
    print(f'shard {shard + 1}/{shards}, {left:.0f} s left', flush=True)
  known = (vae.latent_mean, vae.latent_std) if vae.latent_mean else None
  print(latents.write_index(out, shards, about, known))
  return 0


def _record(
  recorder: ClipRecorder, clip: dict, tokenizer: Tokenizer, length: int
) -> dict[str, np.ndarray]:
  caption = clip['caption']
  if isinstance(caption, bytes):
    caption = caption.decode()
  ids, mask = tokenizer.encode([caption], length)
  video = np.asarray(clip['video'])[None]
  return {
    **recorder.record(recorder.encode(video), video),
    'ids': ids[0].astype(np.int32),
    'mask': mask[0].astype(bool),
  }
