"""Images for measuring, comparing, calibrating and fine-tuning."""
