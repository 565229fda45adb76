"""Measurements that anyone can rerun: speed, parity with official code, the shapes lab."""
