"""Clips to latents, shard by shard: falling digits, or one's own videos."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from unitemp_jax import files, progress
from unitemp_jax.data import (
  digits_builder,
  latents,
  video_folder_builder,
)
from unitemp_jax.data.tokenizer import Tokenizer
from unitemp_jax.data.video_list import VideoFolderSpec
from unitemp_jax.generate.clip_records import ClipRecorder
from unitemp_jax.generate.encode_prompts import fingerprint
from unitemp_jax.models import sizes, weights
from unitemp_jax.models.vae3d import VAE
from unitemp_jax.objectives.vae import to_unit
from unitemp_jax.training.programs import builders

Record = dict[str, np.ndarray]

_BATCH = 16
_LABELS = ('digit', 'colour', 'side', 'digit_id')


@dataclasses.dataclass(frozen=True)
class _Clips:
  """What to encode.

  Attributes:
    count: number of clips.
    per_shard: in a shard.
    about: what the index says of them and their VAE.
    open: loads what is needed, and returns a function from numbers of clips
      to their records.
    statistics: mean and standard deviation of the latents, if they are known.
  """

  count: int
  per_shard: int
  about: dict[str, Any]
  open: Callable[[], Callable[[Sequence[int]], list[Record]]]
  statistics: tuple[Sequence[float], Sequence[float]] | None = None


def encode(config: ConfigDict, out: Path, dry_run: bool = False) -> None:
  """Encodes what `config.data` describes, and prints what is done.

  Raises:
    UserError: bad data, captions or weights, or `out` holds other latents.
  """
  if config.data.name == 'video_folder':
    weights.check(config.latents.vae, _vae_shapes(config))
    Tokenizer.from_file(config.latents.tokenizer)
    if dry_run:
      print(f'would encode the videos of {config.data.videos} to {out}')
      return
    clips = _videos(config)
  else:
    weights.check(config.latents.vae, _vae_shapes(config))
    clips = _digits(config)
  count = -(-clips.count // clips.per_shard)
  print(f'{clips.count} clips to {count} shards in {out}')
  if latents.is_complete(out, clips.about, 'another VAE or data set'):
    print(f'nothing to do: {out / latents.INDEX}')
    return
  if dry_run:
    return
  paths = [latents.shard_path(out, shard) for shard in range(count)]
  left = [shard for shard in range(count) if not paths[shard].exists()]
  if left:
    records = clips.open()  # Refuses what is bad before there is a folder.
  for shard in progress.track(left, 'shard'):
    end = min((shard + 1) * clips.per_shard, clips.count)
    latents.write_shard(
      paths[shard], records(range(shard * clips.per_shard, end))
    )
  print(latents.write_index(out, count, clips.about, clips.statistics))


def _vae_shapes(config: ConfigDict) -> Any:
  return sizes.param_shapes(builders.vae_config(config.model))


def _windows(config: ConfigDict) -> list[slice]:
  return builders.anchor_windows(config.orders, config.data.num_frames)


def _about(config: ConfigDict, count: int, digest: str) -> dict[str, Any]:
  bounds = [[window.start, window.stop] for window in _windows(config)]
  return {'vae': digest, 'clips': count, 'windows': bounds}


def _text(
  config: ConfigDict, tokenizer: Tokenizer, clips: Sequence[dict]
) -> tuple[np.ndarray, np.ndarray]:
  captions = [
    c['caption'].decode() if isinstance(c['caption'], bytes) else c['caption']
    for c in clips
  ]
  ids, mask = tokenizer.encode(captions, config.model.text.length)
  return ids.astype(np.int32), mask.astype(bool)


def _digits(config: ConfigDict) -> _Clips:
  """Falling digits, many at a time."""
  data, path = config.data, Path(config.latents.vae)
  about = _about(config, data.num_clips, files.file_sha256(path)[:16])
  about['data'] = {k: v for k, v in data.to_dict().items() if k != 'dir'}

  def open_clips():
    tokenizer = Tokenizer.from_file(config.latents.tokenizer)
    vae = VAE(builders.vae_config(config.model))
    params = weights.load(path, _vae_shapes(config))
    run = jax.jit(
      lambda video: vae.apply(
        {'params': params}, to_unit(video), method='encode'
      )[0]
    )
    source = digits_builder.prepare(
      data.dir, builders.clip_spec(data), data.num_clips
    )

    def records(numbers):
      clips = [source[i] for i in numbers]
      arrays = _encode_batches(run, clips, _windows(config))
      ids, mask = _text(config, tokenizer, clips)
      return [
        {
          **{name: values[i] for name, values in arrays.items()},
          **{'ids': ids[i], 'mask': mask[i]},
          **{name: np.asarray(clip[name], np.int32) for name in _LABELS},
        }
        for i, clip in enumerate(clips)
      ]

    return records

  return _Clips(data.num_clips, 512, about, open_clips)


def _encode_batches(
  run: Callable, clips: list[dict], windows: Sequence[slice]
) -> dict[str, np.ndarray]:
  """Latents of clips, of their last frames, and of windows, each by itself."""
  padded = clips + clips[-1:] * (-len(clips) % _BATCH)
  made: dict[str, list] = {'latents': [], 'last_image': [], 'anchors': []}
  for first in range(0, len(padded), _BATCH):
    videos = np.stack([c['video'] for c in padded[first : first + _BATCH]])
    made['latents'].append(np.asarray(run(videos), np.float16))
    made['last_image'].append(np.asarray(run(videos[:, -1:]), np.float16))
    parts = [np.asarray(run(videos[:, w]), np.float16) for w in windows]
    made['anchors'] += [np.stack(parts, axis=1)] if parts else []
  return {name: np.concatenate(v) for name, v in made.items() if v}


def _videos(config: ConfigDict) -> _Clips:
  """One's own videos of any size, one at a time."""
  data, path = config.data, Path(config.latents.vae)
  spec = VideoFolderSpec(
    videos=data.videos,
    fps=data.fps,
    height=data.height,
    width=data.width,
    num_frames=data.num_frames,
    captions=data.captions or None,
  )
  source = video_folder_builder.prepare(data.dir, spec, report=print).source
  about = _about(config, len(source), fingerprint(path))
  about['data'] = {name: data[name] for name in ('videos', 'fps', 'num_frames')}
  about['size'] = [data.height, data.width]
  vae = builders.vae_config(config.model)

  def open_clips():
    tokenizer = Tokenizer.from_file(config.latents.tokenizer)
    params = jax.device_put(weights.load(path, _vae_shapes(config)))
    recorder = ClipRecorder(vae, params, _windows(config))

    def record(clip):
      ids, mask = _text(config, tokenizer, [clip])
      video = np.asarray(clip['video'])[None]
      arrays = recorder.record(recorder.encode(video), video)
      return {**arrays, 'ids': ids[0], 'mask': mask[0]}

    return lambda numbers: [record(source[i]) for i in numbers]

  known = (vae.latent_mean, vae.latent_std) if vae.latent_mean else None
  return _Clips(len(source), 64, about, open_clips, known)
