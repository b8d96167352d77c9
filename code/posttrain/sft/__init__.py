"""Supervised fine-tuning: chat templates, LoRA, QLoRA, and the loop around them."""
