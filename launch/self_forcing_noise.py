"""Records the noise that Self-Forcing's own pipeline draws, for a comparison.

Copy this file beside Self-Forcing's `inference.py` and call its pipeline
through `record`, one video at a time:

  from self_forcing_noise import record
  video, latents = record(
    pipeline, 'noise.npz', noise=sampled_noise, text_prompts=prompts,
    return_latents=True)

`unitemp generate --noise=noise.npz` then starts from the same draws. It needs
PyTorch and nothing of this project.
"""

import numpy as np


def record(pipeline, path, noise, **arguments):
  """Runs `pipeline.inference` and writes what it drew.

  Args:
    pipeline: CausalInferencePipeline, or whatever has `denoising_step_list`,
      `num_frame_per_block` and `inference`, and draws by `torch.randn_like`.
    path: of the .npz to write.
    noise: the initial draw, `[1, time, channel, height, width]`.
    **arguments: of `inference`.

  Returns:
    What `inference` returned.

  Raises:
    ValueError: more than one video, or draws that are not those of a few-step
      rollout.
  """
  import torch

  if noise.shape[0] != 1:
    raise ValueError('record one video at a time')
  drawn, randn_like = [], torch.randn_like

  def noted(like, *others, **settings):
    made = randn_like(like, *others, **settings)
    drawn.append(made.detach().float().cpu().numpy())
    return made

  torch.randn_like = noted
  try:
    result = pipeline.inference(noise=noise, **arguments)
  finally:
    torch.randn_like = randn_like
  levels = len(pipeline.denoising_step_list)
  first = noise.detach().float().cpu().numpy()[0]
  draws = np.zeros((levels, *first.shape), np.float32)
  draws[0] = first
  start = 0
  for number in range(0, len(drawn), levels - 1):
    block = drawn[number : number + levels - 1]
    frames = block[0].shape[0]
    for level, draw in enumerate(block, start=1):
      draws[level, start : start + frames] = draw
    start += frames
  if levels > 1 and start != len(first):
    raise ValueError(
      f'the pipeline drew noise for {start} of {len(first)} frames; is the '
      'first one an image? Then leave its latents out of the noise'
    )
  axes = np.array(['level', 'time', 'channel', 'height', 'width'])
  np.savez(path, noise=draws, axes=axes)
  return result


if __name__ == '__main__':
  print(__doc__.strip())
