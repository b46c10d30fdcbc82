"""manyhands beside other libraries on the same work, in alternation, in one run."""
