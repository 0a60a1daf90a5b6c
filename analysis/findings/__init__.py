"""Tables: from checked runs to tuned cells, comparisons, best replay fractions and the recommendation."""
