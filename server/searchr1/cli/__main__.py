"""``python -m searchr1.cli``: the ``searchr1`` command by its module, as ``torchrun -m`` starts it."""

from searchr1.cli.main import main

if __name__ == "__main__":
    main()
