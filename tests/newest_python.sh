#!/bin/sh
# Prints the newest Python there is here that the dependencies support: on PATH, or one of pyenv's.
for minor in 14 13 12; do
  for python in "python3.$minor" "$HOME/.pyenv/versions/3.$minor."*/bin/python; do
    if "$python" -c "import ensurepip, sys; sys.exit(sys.version_info[:2] != (3, $minor))" 2>/dev/null; then
      echo "$python"
      exit 0
    fi
  done
done
echo "no Python newer than 3.11 is installed here: there is nothing to test on" >&2
exit 1
