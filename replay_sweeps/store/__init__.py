"""The store: trained states, leases, clean-up, export."""
