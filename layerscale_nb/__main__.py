"""What does `python -m layerscale_nb` do? The same as `layerscale`."""
import sys

from layerscale_nb.cli import main

if __name__ == "__main__": sys.exit(main())
