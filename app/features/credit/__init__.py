"""Trade credit: applications, who decides on them, and what became of them."""
