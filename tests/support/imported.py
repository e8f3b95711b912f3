"""What ranks import before they train."""

import deepspeed  # noqa: F401
import peft  # noqa: F401
import transformers.models.auto.modeling_auto  # noqa: F401

import trainer.worker  # noqa: F401
