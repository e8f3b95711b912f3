"""What was trained as files for others: folders of adapters, merged models, GGUF."""
