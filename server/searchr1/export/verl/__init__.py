"""Export of a training run to verl (github.com/verl-project/verl): its data, its reward, its loop and its settings."""
