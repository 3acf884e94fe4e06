"""The commands: argparse over functions of bccd_d2; installed inside it as ``bccd_d2.tools``."""
