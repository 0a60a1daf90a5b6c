"""What is there: trained states on disk, who trains what, and what may be dropped."""
