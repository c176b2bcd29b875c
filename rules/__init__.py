"""The rewrite rules, one file each; the file name is the rule's name."""
