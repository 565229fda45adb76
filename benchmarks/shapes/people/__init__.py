"""Simulated people and generators: who rank pictures, and what they rank."""
