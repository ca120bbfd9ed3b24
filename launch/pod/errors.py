"""The error that is shown as one sentence."""


class PodError(Exception):
  """What is wrong, where, and how to mend it.

  Attributes:
    code: exit code of the command.
    ended: whether the training is over and its machines are of no more use.
  """

  def __init__(self, sentence, code=2, ended=False):
    super().__init__(sentence)
    self.code = code
    self.ended = ended
