"""Reference scores of every model's official code on seeded weights and real images.

The official code runs in throw-away environments, so that only `compare` imports stablepref.
`docs/parity.md` shows how to run it again.
"""
