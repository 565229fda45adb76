"""`python -m stablepref`, which launchers such as torchrun need: the command line."""

from stablepref.cli.main import main

if __name__ == "__main__":
    main()
