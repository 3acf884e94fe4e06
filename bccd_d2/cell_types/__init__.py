"""Types of white cells and shapes of red ones: crops, classifier, training, adaptation, and what they come to."""
