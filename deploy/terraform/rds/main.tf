# What AWS needs for IAM tokens of one database user: a role that trusts the broker and may do nothing but connect as that user.
# `terraform apply` after deploy/terraform/aws, whose OIDC provider it uses; see docs/targets/rds.md.

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
    condition     = can(regex("^https://[a-z0-9.-]+(:[0-9]+)?(/[A-Za-z0-9._~/-]*[A-Za-z0-9._~-])?$", var.issuer))
    error_message = "The issuer is an https URL in lower case, without a slash at its end."
  }
}

variable "subjects" {
  type        = list(string)
  description = "Who may have the role, as the broker names them: `github:repository_id:1296269`. No pattern."

  validation {
    condition = length(var.subjects) > 0 && alltrue([
      for subject in var.subjects : can(regex("^[a-z0-9-]+:.+$", subject)) && !can(regex("[*?]", subject))
    ])
    error_message = "At least one subject, such as `github:repository_id:1296269`, whole: no `*`, no `?`."
  }
}

variable "audience" {
  type        = string
  default     = "sts.amazonaws.com"
  description = "The `assertion.audience` of the target: as deploy/terraform/aws was told."

  validation {
    condition     = length(var.audience) > 0 && length(var.audience) <= 255
    error_message = "The audience has 1 to 255 characters."
  }
}

variable "resource_id" {
  type        = string
  description = "The database's `DbiResourceId` (`db-…`), or of Aurora the `DbClusterResourceId` (`cluster-…`): its name is no help here."

  validation {
    condition     = can(regex("^(db|cluster|prx)-[A-Za-z0-9]+$", var.resource_id))
    error_message = "A resource id begins with `db-`, `cluster-` or `prx-`; `*` would be every database of the account."
  }
}

variable "user" {
  type        = string
  description = "The database's user, as the target's role names it."

  validation {
    condition     = can(regex("^[A-Za-z0-9_.-]+$", var.user))
    error_message = "Letters, digits and _-. alone; `*` would be every user of the database."
  }
}

data "aws_caller_identity" "here" {}
data "aws_partition" "here" {}
data "aws_region" "here" {}

data "aws_iam_openid_connect_provider" "cambio" {
  url = var.issuer
}

data "aws_iam_policy_document" "trust" {
  statement {
    actions = ["sts:AssumeRoleWithWebIdentity", "sts:TagSession", "sts:SetSourceIdentity"]

    principals {
      type        = "Federated"
      identifiers = [data.aws_iam_openid_connect_provider.cambio.arn]
    }

    condition {
      test     = "StringEquals"
      variable = "${trimprefix(var.issuer, "https://")}:aud"
      values   = [var.audience]
    }

    condition {
      test     = "StringEquals"
      variable = "${trimprefix(var.issuer, "https://")}:sub"
      values   = var.subjects
    }
  }
}

data "aws_iam_policy_document" "connect" {
  statement {
    actions = ["rds-db:connect"]
    resources = [
      "arn:${data.aws_partition.here.partition}:rds-db:${data.aws_region.here.name}:${data.aws_caller_identity.here.account_id}:dbuser:${var.resource_id}/${var.user}",
    ]
  }
}

resource "aws_iam_role" "connect" {
  name                 = "cambio-rds-${var.user}"
  max_session_duration = 3600
  assume_role_policy   = data.aws_iam_policy_document.trust.json
}

resource "aws_iam_role_policy" "connect" {
  name   = "connect"
  role   = aws_iam_role.connect.id
  policy = data.aws_iam_policy_document.connect.json
}

output "role_arn" {
  value = aws_iam_role.connect.arn
}
