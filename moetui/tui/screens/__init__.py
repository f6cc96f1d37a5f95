"""The explorer's screen and its dialogs."""
