"""Whether two servers give the same answers: what is asked, how far they agree, what that shows."""
