"""`python -m polymodal`: the command line."""

from polymodal.app.cli import main

if __name__ == "__main__":
    main()
