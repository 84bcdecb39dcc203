"""The phases of a run, a module each; `train.pipeline` names their order."""
