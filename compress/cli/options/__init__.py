"""The options of all commands, a panel of --help each file, with the words that --help shows."""
