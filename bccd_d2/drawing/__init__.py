"""What every page and picture is drawn with: overlays of cells, building blocks of HTML pages, charts."""
