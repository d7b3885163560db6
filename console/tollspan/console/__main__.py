"""`python -m tollspan.console` is `tollspan`."""

from . import main

if __name__ == "__main__":
    main()
