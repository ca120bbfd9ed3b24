"""Clips to latents, shard by shard: falling digits, or one's own videos.

Clips are decoded on all cores while others are encoded, a batch at a time and
split over this host's devices. What is done is kept batch by batch: batches
are the same in every run, so that an interrupted or divided encoding writes the
same bytes as one that ran through.
"""

import contextlib
import dataclasses
import functools
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import grain
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from unitemp_jax import files, progress, storage, timeline
from unitemp_jax.data import digits_builder, latents, video_folder_builder
from unitemp_jax.data.prompt_embeddings import write_records
from unitemp_jax.data.tokenizer import Tokenizer
from unitemp_jax.errors import UserError
from unitemp_jax.generate.encode_prompts import fingerprint
from unitemp_jax.models import flops, sizes, vae3d, weights
from unitemp_jax.models.vae3d import VAE, VAEConfig
from unitemp_jax.objectives.vae import to_unit
from unitemp_jax.parallel import processes
from unitemp_jax.parallel.mesh import make_mesh, put_batch
from unitemp_jax.sampling.decode import Codec
from unitemp_jax.training.programs import builders, networks

Record = dict[str, np.ndarray]

_BATCH = 16  # of digits
_OTHERS = 'another VAE or data set'
_OWN = (latents.CAPTIONS, 'parts/*')  # written beside the shards
_LABELS = ('digit', 'colour', 'side', 'digit_id')
_AHEAD_BYTES = 4e9  # of decoded clips that wait


@dataclasses.dataclass(frozen=True)
class _Clips:
  """What to encode."""

  source: Any  # clips with `video` and `caption`
  per_shard: int  # clips in a shard
  batch: int  # clips at a time, the same in every run
  keep: bool  # whether each clip is kept before its shard is whole
  about: dict[str, Any]  # what the index says of them and their VAE
  # Loads what is needed, and returns a function from clips to records.
  open: Callable[[], Callable[[list[dict]], list[Record]]]
  # Mean and standard deviation of the latents, if they are known.
  statistics: tuple[Sequence[float], Sequence[float]] | None = None

  def numbers(self, shard: int) -> range:
    """The clips of a shard."""
    first = shard * self.per_shard
    return range(first, min(first + self.per_shard, len(self.source)))


def encode(
  config: ConfigDict,
  out: Path,
  dry_run: bool = False,
  *,
  part: tuple[int, int] = (0, 1),
  dtype: str = 'float16',
  batch_size: int = 1,
) -> None:
  """Encodes what `config.data` describes, and prints what is done.

  Args:
    config: with `data` and `latents`.
    out: folder.
    dry_run: say what would be done and stop.
    part: (I, N), to make every N-th shard from the I-th on; whoever finds all
      shards writes the index.
    dtype: of the latents on disk, one of `latents.DTYPES`.
    batch_size: of one's own videos, clips at a time on each device.
  """
  weights.check(config.latents.vae, _vae_shapes(config))
  Tokenizer.from_file(config.latents.tokenizer)
  if config.data.name == 'video_folder':
    clips = _videos(config, dtype, batch_size, dry_run)
  else:
    clips = _digits(config, out, dtype, dry_run)
  if clips is None:
    return
  count = -(-len(clips.source) // clips.per_shard)
  mine = range(part[0], count, part[1])
  print(
    f'{len(clips.source)} clips to {count} shards in {out}; {len(mine)} are of '
    f'part {part[0]}/{part[1]}'
  )
  if latents.is_complete(out, clips.about, _OTHERS):
    print(f'nothing to do: {out / latents.INDEX}')
    return
  if dry_run:
    return
  paths = [latents.shard_path(out, shard) for shard in range(count)]
  latents.check_started(out, clips.about, _OWN)
  left = [shard for shard in mine if not paths[shard].exists()]
  if left:
    records = clips.open()  # Refuses what is bad before there is a folder.
    latents.start(out, clips.about)
    _write_shards(clips, records, out, left)
  there = len(storage.existing(paths))
  if there < count:
    print(f'{there} of {count} shards are there; run the other parts as well')
    return
  if clips.statistics is None:
    storage.exchange(out)  # They are computed from all shards.
  if (out / 'parts').is_dir():  # of a host that another one overtook
    for i in range(len(clips.source)):
      _kept(out, i).unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # Files of others stay.
      (out / 'parts').rmdir()
  print(latents.write_index(out, count, clips.about, clips.statistics))


def _write_shards(
  clips: _Clips,
  records: Callable[[list[dict]], list[Record]],
  out: Path,
  shards: Sequence[int],
) -> None:
  """Encodes what is missing, and writes each shard when it is whole."""
  steps = []
  for shard in shards:
    numbers = clips.numbers(shard)
    for first in range(numbers.start, numbers.stop, clips.batch):
      batch = range(first, min(first + clips.batch, numbers.stop))
      kept = clips.keep and all(_kept(out, i).exists() for i in batch)
      steps.append((shard, batch, kept))
  wanted = [i for _, batch, kept in steps if not kept for i in batch]
  read = _read_ahead(clips.source, wanted, clips.batch)
  made: list[Record] = []
  for shard, batch, kept in progress.track(steps, 'batch'):
    if not kept:
      own = records([next(read) for _ in batch])
      if clips.keep:
        for i, record in zip(batch, own, strict=True):
          files.write(_kept(out, i), latents.to_bytes(record))
      else:
        made += own
    numbers = clips.numbers(shard)
    if batch.stop < numbers.stop:
      continue
    path = latents.shard_path(out, shard)
    if clips.keep:
      write_records(path, (_kept(out, i).read_bytes() for i in numbers))
      for i in numbers:
        _kept(out, i).unlink()
    else:
      latents.write_shard(path, made)
      made = []


def _kept(out: Path, number: int) -> Path:
  return out / 'parts' / f'{number:08d}.safetensors'


def _read_ahead(
  source: Any, numbers: Sequence[int], batch: int
) -> Iterator[dict]:
  """Clips in this order, read on all cores and some ahead."""
  if not numbers:
    return iter(())
  cores = os.cpu_count() or 1
  first = source[numbers[0]]
  most = max(int(_AHEAD_BYTES / max(first['video'].nbytes, 1)), batch)
  options = grain.ReadOptions(
    num_threads=min(cores, most), prefetch_buffer_size=min(cores + batch, most)
  )
  dataset = grain.MapDataset.source(numbers).map(source.__getitem__)
  return iter(dataset.to_iter_dataset(options))


def _vae_shapes(config: ConfigDict) -> Any:
  return sizes.param_shapes(builders.vae_config(config.model))


def _windows(config: ConfigDict) -> list[slice]:
  return builders.anchor_windows(config.orders, config.data.num_frames)


def _about(
  config: ConfigDict, count: int, digest: str, dtype: str
) -> dict[str, Any]:
  bounds = [[window.start, window.stop] for window in _windows(config)]
  about = {'vae': digest, 'clips': count, 'windows': bounds}
  # Folders from before there was a choice do not say so.
  return about if dtype == 'float16' else {**about, 'dtype': dtype}


def _captions(clips: Iterable[dict]) -> list[str]:
  texts = (clip['caption'] for clip in clips)
  return [t.decode() if isinstance(t, bytes) else t for t in texts]


def _text(
  config: ConfigDict, tokenizer: Tokenizer, clips: Sequence[dict]
) -> tuple[np.ndarray, np.ndarray]:
  length = config.model.text.length
  ids, mask = tokenizer.encode(_captions(clips), length)
  return ids.astype(np.int32), mask.astype(bool)


def _digits(
  config: ConfigDict, out: Path, dtype: str, dry_run: bool
) -> _Clips | None:
  """Falling digits, many at a time."""
  data, path = config.data, Path(config.latents.vae)
  about = _about(config, data.num_clips, files.file_sha256(path)[:16], dtype)
  about['data'] = {k: v for k, v in data.to_dict().items() if k != 'dir'}
  if dry_run:
    print(f'would encode {data.num_clips} clips')
    return None
  latents.is_complete(out, about, _OTHERS)  # Refuses before clips are drawn.

  def open_clips():
    tokenizer = Tokenizer.from_file(config.latents.tokenizer)
    vae = VAE(builders.vae_config(config.model))
    params = weights.load(path, _vae_shapes(config))
    run = jax.jit(
      lambda video: vae.apply(
        {'params': params}, to_unit(video), method='encode'
      )[0]
    )
    stored = latents.DTYPES[dtype]

    def records(clips):
      arrays = _encode_batch(run, clips, _windows(config), stored)
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

  _, source = digits_builder.prepare(
    data.dir, builders.clip_spec(data), data.num_clips
  )
  return _Clips(source, 512, _BATCH, False, about, open_clips)


def _encode_batch(
  run: Callable, clips: list[dict], windows: Sequence[slice], dtype: Any
) -> dict[str, np.ndarray]:
  """Latents of clips, of their last frames, and of windows, each by itself."""
  padded = clips + clips[-1:] * (-len(clips) % _BATCH)
  videos = np.stack([clip['video'] for clip in padded])
  made = {
    'latents': np.asarray(run(videos), dtype),
    'last_image': np.asarray(run(videos[:, -1:]), dtype),
  }
  parts = [np.asarray(run(videos[:, w]), dtype) for w in windows]
  if parts:
    made['anchors'] = np.stack(parts, axis=1)
  return made


class ClipRecorder:
  """Adds to clips what students need beside them (see `data.latents`).

  Batches are split over this host's devices where they divide.
  """

  def __init__(
    self,
    config: VAEConfig,
    params: Any,
    windows: Sequence[slice],
    dtype: str = 'float16',
  ):
    """Of a VAE, for anchors that stand for these frames; `dtype` of records."""
    self._codec, self._params = Codec(config), params
    self._mesh = make_mesh({'data': -1}, jax.local_devices())
    self._windows, self._dtype = windows, latents.DTYPES[dtype]
    self._mean = np.asarray(config.latent_mean or 0.0)
    self._std = np.asarray(config.latent_std or 1.0)

  @functools.cached_property
  def _everywhere(self) -> Any:
    """The weights on each of the devices."""
    replicated = NamedSharding(self._mesh, PartitionSpec())
    return jax.device_put(self._params, replicated)

  def encode(self, video: np.ndarray) -> np.ndarray:
    """Pixels uint8 `[B, T, H, W, 3]` to latents `[B, N, h, w, C]`."""
    if self._mesh.size > 1 and len(video) % self._mesh.size == 0:
      video = put_batch(video, self._mesh)
      return self._codec.encode_clip(self._everywhere, video)
    return self._codec.encode_clip(self._params, video)

  def decode(self, coded: np.ndarray) -> np.ndarray:
    """Latents `[N, h, w, C]` to pixels `[1, T, H, W, 3]`, one at a time."""
    frames, memory = [], None
    for latent in coded:
      part, memory = self._codec.decode_chunk(
        self._params, latent[None, None], memory
      )
      frames.append(np.asarray(part))
    return np.concatenate(frames, axis=1)

  def record(
    self, coded: np.ndarray, video: np.ndarray, **more: np.ndarray
  ) -> list[Record]:
    """The arrays of clips, before normalisation.

    Args:
      coded: latents of the clips, normalised, `[B, N, h, w, C]`.
      video: their pixels uint8 `[B, T, H, W, 3]`.
      **more: arrays in the space of the latents, `[B, ...]`.
    """
    arrays = {'latents': coded, **more}
    arrays['last_image'] = self.encode(video[:, -1:])
    if self._windows:
      parts = [self.encode(video[:, window]) for window in self._windows]
      arrays['anchors'] = np.stack(parts, axis=1)
    stored = {
      name: (np.asarray(array) * self._std + self._mean).astype(self._dtype)
      for name, array in arrays.items()
    }
    return [
      {name: array[i] for name, array in stored.items()}
      for i in range(len(video))
    ]


def _videos(
  config: ConfigDict, dtype: str, batch_size: int, dry_run: bool
) -> _Clips | None:
  """One's own videos."""
  data, path = config.data, Path(config.latents.vae)
  spec, vae = builders.video_spec(data), builders.vae_config(config.model)
  if dry_run:
    scans = os.path.abspath(os.path.join(data.dir, video_folder_builder.SCANS))
    found = video_folder_builder.find_clips(
      spec, scans=scans if os.path.isdir(scans) else None
    )
    _describe(config, spec, vae, found.clips, dtype)
    return None
  source = _index(data, spec).source
  about = _about(config, len(source), fingerprint(path), dtype)
  about['data'] = {name: data[name] for name in ('videos', 'fps', 'num_frames')}
  about['data']['videos'] = storage.addressed(data.videos)
  about['size'] = [data.height, data.width]
  rows = batch_size * jax.local_device_count()

  def open_clips():
    tokenizer = Tokenizer.from_file(config.latents.tokenizer)
    params = weights.load(path, _vae_shapes(config))
    recorder = ClipRecorder(vae, params, _windows(config), dtype)

    def records(clips):
      videos = np.stack([np.asarray(clip['video']) for clip in clips])
      # The last batch of a shard is filled up: one program for all.
      videos = np.pad(
        videos, [(0, rows - len(clips))] + [(0, 0)] * 4, mode='edge'
      )
      ids, mask = _text(config, tokenizer, clips)
      made = recorder.record(recorder.encode(videos), videos)
      return [
        {**record, 'ids': own, 'mask': end}
        for record, own, end in zip(made, ids, mask, strict=False)
      ]

    return records

  known = (vae.latent_mean, vae.latent_std) if vae.latent_mean else None
  return _Clips(source, 64, rows, True, about, open_clips, known)


def _index(data: ConfigDict, spec: Any) -> video_folder_builder.PreparedVideos:
  """The index of one's own videos, whose files hosts share out among them."""
  hosts, prepare = jax.process_count(), video_folder_builder.prepare
  folder = Path(data.dir)
  if hosts > 1:
    doing = 'Looking through the videos'
    with processes.sync(doing):
      video_folder_builder.find_clips(
        spec,
        scans=os.path.join(data.dir, video_folder_builder.SCANS),
        part=(jax.process_index(), hosts),
        report=print,
      )
      storage.exchange(folder)
    with processes.sync(doing):
      if jax.process_index() == 0:
        storage.exchange(folder)
        prepare(data.dir, spec)
        storage.exchange(folder)
    storage.exchange(folder)
  return prepare(data.dir, spec, report=print)


def _describe(
  config: ConfigDict, spec: Any, vae: VAEConfig, found: list, dtype: str
) -> None:
  """Says how many clips there are, how large they become and how long it takes.

  The speed is that of a matrix product on this device, half of it reached, and
  that of decoding one clip.
  """
  windows = _windows(config)
  lengths = [spec.num_frames, 1, *(w.stop - w.start for w in windows)]
  cells = sum(timeline.num_latents(n, vae.temporal_stride) for n in lengths)
  height, width = vae3d.latent_grid(vae, spec.height, spec.width)
  size = cells * height * width * vae.z_dim * latents.DTYPES[dtype].itemsize
  work = sum(
    flops.vae_encode(vae, n, spec.height, spec.width).total for n in lengths
  )
  seconds = 2 * work / speed() / jax.device_count()
  for _ in range(2):  # The first one loads what all of them need.
    began = time.monotonic()
    video_folder_builder.video_folder.read_clip(
      spec.videos, found[0], spec.height, spec.width
    )
  read = (time.monotonic() - began) / (os.cpu_count() or 1)
  count = len(found)
  print(
    f'would encode {count} clips of {spec.num_frames} frames, {spec.height}x'
    f'{spec.width}, to {count * size / 1e9:.3g} GB of latents in about '
    f'{count * max(seconds, read) / 3600:.2g} hours on '
    f'{jax.device_count()} {jax.default_backend()} devices (per clip: '
    f'{1e3 * read:.3g} ms to decode, {seconds:.2g} s to encode, by the speed '
    'of a matrix product here)'
  )


def speed() -> float:
  """Operations per second of a matrix product on one device."""
  side = 2048
  product = jax.jit(lambda x: x @ x)
  x = product(jnp.ones((side, side)))
  jax.block_until_ready(x)
  began = time.monotonic()
  for _ in range(4):
    x = product(x * 0)
  jax.block_until_ready(x)
  return 4 * 2 * side**3 / (time.monotonic() - began)


def write_captions(config: ConfigDict, out: Path) -> Path | None:
  """Lists the captions of encoded videos, and says which lack embeddings.

  Returns:
    A file of all captions and the negative prompt, one per line, to be encoded;
    None if training needs no embeddings, or finds all of them.
  """
  folder, data = config.latents.get('embeddings'), config.data
  if not folder or data.name != 'video_folder':
    return None
  spec = builders.video_spec(data)
  records = video_folder_builder.prepare(data.dir, spec).source.records
  lines = dict.fromkeys(_captions(records[i] for i in range(len(records))))
  negative = config.sampling.get('negative_prompt')
  if negative:
    lines[negative] = None
  path = files.write(out / latents.CAPTIONS, '\n'.join(lines) + '\n')
  try:
    networks.check_captions(config, path)
  except UserError as error:
    print(error)
    return path
  return None
