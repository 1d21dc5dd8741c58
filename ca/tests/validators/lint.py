"""Reads certificates and lists against the letter of RFC 5280 by pkilint: `python lint.py FILE`, with a FILE as Validate.java
reads it. Prints what is found, and how many files of each kind were read."""
import contextlib
import io
import sys

from pkilint.bin import lint_crl, lint_pkix_cert

with open(sys.argv[1], encoding="ascii") as f:
    fields = [line.rstrip("\n").split("|") for line in f]
certificates = {file for case in fields for file in [case[2], *case[4].split(",")]}
lists = {file for case in fields for file in case[3].split(",")}
found = False
for linter, arguments, files in (
    (lint_pkix_cert, ["lint", "-s", "WARNING"], certificates),
    (lint_crl, ["lint", "-s", "WARNING", "-t", "CRL", "-p", "PKIX"], lists),
):
    for file in sorted(files):
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            code = linter.main([*arguments, file])
        if code:
            found = True
            print(file, said.getvalue())
    print(f"{linter.__name__}: {len(files)} files")
sys.exit(found)
