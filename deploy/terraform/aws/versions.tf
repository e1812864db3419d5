terraform {
  required_version = ">= 1.5"
  required_providers {
    aws = {
      source = "hashicorp/aws"
      # From here on AWS's own list of authorities vouches for the issuer: no thumbprint is to be kept up to date.
      version = ">= 5.81.0, < 7.0.0"
    }
  }
}
