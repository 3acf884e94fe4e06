"""What Detectron2 lacks, registered by name and chosen in YAML."""
