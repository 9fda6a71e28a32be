"""Every class of exceptions that may become a response to a client."""

from polymodal.app import main  # whose imports define all of them
from polymodal.app.problems import PROBLEMS, InternalError
from polymodal.model import InputError

assert main
REFUSALS = [InternalError, *PROBLEMS.values(), InputError, *InputError.__subclasses__()]
