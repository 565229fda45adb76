"""The demonstration: selection and fine-tuning of the bundled pipeline on one page."""
