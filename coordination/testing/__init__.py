"""What do we hand to those who test an extension of their own? Suites over the protocols; extra ``[testing]``."""
