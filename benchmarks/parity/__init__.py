"""Reference scores of every model's official code on seeded weights and real images.

The official code runs in throwaway environments, so nothing but `compare` imports stablepref.
`docs/parity.md` tells how to rerun it.
"""
