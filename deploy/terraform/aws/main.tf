# What AWS needs to know of the broker: its issuer, and one role that trusts it. `terraform apply` with
# `-var issuer=https://broker.example` in the account whose role is to be had; see docs/targets/aws.md.

terraform {
  required_version = ">= 1.5"
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.81"
    }
  }
}

variable "issuer" {
  type        = string
  description = "The broker's issuer URL, exactly as its configuration has it: https, no slash at the end."

  validation {
    condition     = startswith(var.issuer, "https://") && !endswith(var.issuer, "/")
    error_message = "The issuer is an https URL without a slash at its end."
  }
}

variable "audience" {
  type        = string
  default     = "sts.amazonaws.com"
  description = "The `assertion.audience` of the target."
}

variable "subjects" {
  type        = list(string)
  description = "Who may have the role, as the broker names them: `github:repository_id:1296269`. No pattern."
}

locals {
  # Condition keys are called by the issuer without its scheme.
  provider = trimprefix(var.issuer, "https://")
}

resource "aws_iam_openid_connect_provider" "cambio" {
  url            = var.issuer
  client_id_list = [var.audience]
}

data "aws_iam_policy_document" "trust" {
  statement {
    # TagSession and SetSourceIdentity: without them AWS refuses a session that carries tags or a source identity.
    actions = [
      "sts:AssumeRoleWithWebIdentity",
      "sts:TagSession",
      "sts:SetSourceIdentity",
    ]

    principals {
      type        = "Federated"
      identifiers = [aws_iam_openid_connect_provider.cambio.arn]
    }

    condition {
      test     = "StringEquals"
      variable = "${local.provider}:aud"
      values   = [var.audience]
    }

    # The second lock: even a wrong rule at the broker opens this role to these workloads alone.
    condition {
      test     = "StringEquals"
      variable = "${local.provider}:sub"
      values   = var.subjects
    }
  }
}

resource "aws_iam_role" "deploy" {
  name                 = "deploy"
  max_session_duration = 3600
  assume_role_policy   = data.aws_iam_policy_document.trust.json
}

output "role_arn" {
  value = aws_iam_role.deploy.arn
}
