"""Bits-back coding: data as bytes whose number is the bound that a pair prints."""
