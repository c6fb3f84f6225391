"""`python -m ipd`."""

from ipd.cli import main

raise SystemExit(main())
