"""Making a judge: batch jobs that end in a release."""

import warnings

from models import torchvision_guard

torchvision_guard.install()  # before any job imports transformers

# TRL names the vLLM versions it has been tried with at every import, also where no vLLM is used.
warnings.filterwarnings("ignore", message="TRL currently supports vLLM")
