"""`python -m wyr_batch` is `wyr-batch`."""

from wyr_batch.cli import entry

if __name__ == "__main__":
    entry()
