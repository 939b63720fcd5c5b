"""Making a judge: batch jobs that end in a release."""

from models import torchvision_guard

torchvision_guard.install()  # before any job imports transformers
