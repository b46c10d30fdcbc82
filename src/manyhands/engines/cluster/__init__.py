"""What the engines share whose workers are those of another library's cluster."""
