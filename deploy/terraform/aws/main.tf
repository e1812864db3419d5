# What AWS needs to know of the broker: its issuer, and roles that trust it. docs/targets/aws.md.

locals {
  # Condition keys are called by the issuer without its scheme.
  provider = trimprefix(var.issuer, "https://")
}

data "aws_region" "here" {}

resource "aws_iam_openid_connect_provider" "cambio" {
  url            = var.issuer
  client_id_list = [var.audience]
}

data "aws_iam_policy_document" "trust" {
  for_each = var.roles

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
      values   = each.value.subjects
    }
  }
}

resource "aws_iam_role" "role" {
  for_each = var.roles

  name                 = "cambio-${each.key}"
  description          = "What Cambio grants as ${each.key}"
  max_session_duration = each.value.max_session_duration
  permissions_boundary = each.value.permissions_boundary
  assume_role_policy   = data.aws_iam_policy_document.trust[each.key].json
}

resource "aws_iam_role_policy_attachment" "role" {
  for_each = merge([
    for name, role in var.roles : { for arn in role.policy_arns : "${name} ${arn}" => { role = name, arn = arn } }
  ]...)

  role       = aws_iam_role.role[each.value.role].name
  policy_arn = each.value.arn
}
