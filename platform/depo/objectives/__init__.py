"""The efficiency bonus and the preference losses: free functions of tensors."""
